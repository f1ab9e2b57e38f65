"""Demonstrations in foreign formats: what there is in a folder or file, read episode by episode."""
