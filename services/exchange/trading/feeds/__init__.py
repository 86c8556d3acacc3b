"""What readers follow: durable frames, trades, book copies, and the channels that many subscribers share."""
