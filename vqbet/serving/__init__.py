"""Acting where a robot is: a verified bundle, numpy and torch, and nothing that trains, stores or registers."""
