"""Groups: consumers that share a stream's entries, and what they make of them."""
