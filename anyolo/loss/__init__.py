"""How wrong the raw maps of a head are."""
