"""HTML pages that load nothing, and the figures on them."""
