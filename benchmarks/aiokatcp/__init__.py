"""The aiokatcp façade against aiokatcp itself: the same programs in two environments."""
