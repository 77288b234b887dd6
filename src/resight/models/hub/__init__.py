"""The Hugging Face Hub: addresses of models there, and what is downloaded and uploaded."""
