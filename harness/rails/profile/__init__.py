"""The layer profile of a decoder: the time of each layer, and categories of layers."""
