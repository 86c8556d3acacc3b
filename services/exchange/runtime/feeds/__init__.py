"""What every feed of the exchange is made of, whichever service sends it: channels, resume tokens, levels, messages of a book."""
