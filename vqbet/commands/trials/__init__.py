"""Trials on a robot as commands: planned, served blind, run by an operator, and judged."""
