"""Market data to the world: copies of all books, kept from the engines' events, and the streams and answers made from them."""
