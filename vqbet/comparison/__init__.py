"""The comparison of the paper: baselines, grid, runs and page. Nothing of the product imports it."""
