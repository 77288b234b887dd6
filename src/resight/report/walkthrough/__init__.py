"""The walkthrough of a recipe: every tensor from the loader's batch to the mAP, measured in one step of training."""
