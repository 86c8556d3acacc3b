"""The market maker: an ordinary customer of the exchange that keeps its books alive."""
