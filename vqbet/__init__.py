"""From robot demonstrations to a policy that is allowed on a robot, with the evidence kept."""
