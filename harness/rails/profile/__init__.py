"""The layers of a decoder and the time of each."""
