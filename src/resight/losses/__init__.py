"""From features, logits and identities to the scalar that training minimizes."""
