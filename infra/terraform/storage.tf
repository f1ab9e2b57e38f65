# Three buckets: data (DVC's remote), runs and models (MLflow), evidence. Versions are kept; evidence is locked.
locals {
  buckets = toset(["data", "mlflow", "evidence"])
}

resource "random_id" "suffix" {
  byte_length = 4
}

resource "aws_s3_bucket" "team" {
  for_each            = local.buckets
  bucket              = "${var.name}-${each.key}-${random_id.suffix.hex}"
  object_lock_enabled = each.key == "evidence"
}

resource "aws_s3_bucket_versioning" "team" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.team[each.key].id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "evidence" {
  bucket = aws_s3_bucket.team["evidence"].id
  rule {
    default_retention {
      mode = "COMPLIANCE"
      days = var.evidence_days
    }
  }
  depends_on = [aws_s3_bucket_versioning.team]
}

resource "aws_s3_bucket_public_access_block" "team" {
  for_each                = local.buckets
  bucket                  = aws_s3_bucket.team[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "team" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.team[each.key].id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "aws:kms"
    }
    bucket_key_enabled = true
  }
}

# Clones and checkpoints of runs, which a retry on another node finds again.
resource "aws_efs_file_system" "runs" {
  encrypted = true
}

resource "aws_efs_mount_target" "runs" {
  for_each        = toset(var.subnets)
  file_system_id  = aws_efs_file_system.runs.id
  subnet_id       = each.value
  security_groups = [aws_security_group.inside.id]
}
