"""The paper's comparison: baselines, grid, runs and results page. No product code imports this package."""
