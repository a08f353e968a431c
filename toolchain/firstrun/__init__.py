"""`./inv firstrun`: every assumption about a Mac that this toolkit makes, confirmed or refuted on this machine."""
