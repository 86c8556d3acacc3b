"""How many orders an account and an API key may send in a second and have open, and who sends the most."""
