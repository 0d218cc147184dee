"""Who may write here: users, their passwords, and the browsers they are signed in with."""
