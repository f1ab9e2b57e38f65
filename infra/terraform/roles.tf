# Roles of least privilege. Pods get theirs from the cluster, so that no key of the bucket is in any file.
data "aws_iam_policy_document" "assumed_by" {
  for_each = { cluster = "eks.amazonaws.com", node = "ec2.amazonaws.com", pod = "pods.eks.amazonaws.com" }
  statement {
    actions = each.key == "pod" ? ["sts:AssumeRole", "sts:TagSession"] : ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = [each.value]
    }
  }
}

data "aws_partition" "here" {}

resource "aws_iam_role" "cluster" {
  name               = "${var.name}-cluster"
  assume_role_policy = data.aws_iam_policy_document.assumed_by["cluster"].json
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:${data.aws_partition.here.partition}:iam::aws:policy/AmazonEKSClusterPolicy"
}

resource "aws_iam_role" "node" {
  name               = "${var.name}-node"
  assume_role_policy = data.aws_iam_policy_document.assumed_by["node"].json
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each   = toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly"])
  role       = aws_iam_role.node.name
  policy_arn = "arn:${data.aws_partition.here.partition}:iam::aws:policy/${each.value}"
}

# A run reads and writes data and models. Of evidence it can only add: no deletion, no change of a lock.
data "aws_iam_policy_document" "run" {
  statement {
    actions   = ["s3:ListBucket"]
    resources = [for bucket in aws_s3_bucket.team : bucket.arn]
  }
  statement {
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.team["data"].arn}/*"]
  }
  statement {
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = ["${aws_s3_bucket.team["evidence"].arn}/*"]
  }
}

# MLflow's server alone reaches its bucket.
data "aws_iam_policy_document" "servers" {
  statement {
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.team["mlflow"].arn]
  }
  statement {
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.team["mlflow"].arn}/*"]
  }
}

locals {
  pods = {
    vqbet-run     = data.aws_iam_policy_document.run.json
    vqbet-servers = data.aws_iam_policy_document.servers.json
  }
}

resource "aws_iam_role" "pod" {
  for_each           = local.pods
  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.assumed_by["pod"].json
}

resource "aws_iam_role_policy" "pod" {
  for_each = local.pods
  role     = aws_iam_role.pod[each.key].id
  policy   = each.value
}

resource "aws_eks_pod_identity_association" "pod" {
  for_each        = local.pods
  cluster_name    = aws_eks_cluster.team.name
  namespace       = "vqbet"
  service_account = each.key
  role_arn        = aws_iam_role.pod[each.key].arn
}
