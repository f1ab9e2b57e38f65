"""BlockPush, with targets at fixed or drawn sides."""
