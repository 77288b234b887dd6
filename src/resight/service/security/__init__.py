"""Who may do what: keys, sessions and the table of permissions; and the log of who did it."""
