"""What a person or a flow calls beside the graph, one file each."""
