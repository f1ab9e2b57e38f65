# Kubernetes with two node pools: a small one for servers and CPU work, and GPU nodes that are there while a job waits.
resource "aws_eks_cluster" "team" {
  name     = var.name
  role_arn = aws_iam_role.cluster.arn
  vpc_config {
    subnet_ids              = var.subnets
    endpoint_private_access = true
    endpoint_public_access  = false
  }
  access_config {
    authentication_mode = "API"
  }
  enabled_cluster_log_types = ["api", "audit", "authenticator"]
  depends_on                = [aws_iam_role_policy_attachment.cluster]
}

resource "aws_eks_addon" "team" {
  for_each     = toset(["vpc-cni", "coredns", "kube-proxy", "eks-pod-identity-agent", "aws-efs-csi-driver"])
  cluster_name = aws_eks_cluster.team.name
  addon_name   = each.value
}

resource "aws_eks_node_group" "cpu" {
  cluster_name    = aws_eks_cluster.team.name
  node_group_name = "cpu"
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = var.subnets
  instance_types  = ["m7i.2xlarge"]
  labels          = { "vqbet.pool" = "cpu" }
  scaling_config {
    desired_size = 2
    min_size     = 1
    max_size     = 4
  }
  depends_on = [aws_iam_role_policy_attachment.node]
}

resource "aws_eks_node_group" "gpu" {
  cluster_name    = aws_eks_cluster.team.name
  node_group_name = "gpu"
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = var.subnets
  instance_types  = [var.gpu_machine]
  ami_type        = "AL2023_x86_64_NVIDIA"
  capacity_type   = var.spot ? "SPOT" : "ON_DEMAND"
  labels          = { "vqbet.pool" = "gpu" }
  taint {
    key    = "nvidia.com/gpu"
    value  = "present"
    effect = "NO_SCHEDULE"
  }
  scaling_config {
    desired_size = 0
    min_size     = 0
    max_size     = var.gpu_machines
  }
  lifecycle {
    ignore_changes = [scaling_config[0].desired_size] # an autoscaler's
  }
  depends_on = [aws_iam_role_policy_attachment.node]
}
