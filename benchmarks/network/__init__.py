"""Armillary's lab network against MSL-Network 1.0: the same programs in two environments."""
