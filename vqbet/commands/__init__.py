"""Commands that a person or a flow runs beside the graph, one file each."""
