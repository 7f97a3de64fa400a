"""Which units matter, which of them stay, and how is what stays mended? Tools of the pruners."""
