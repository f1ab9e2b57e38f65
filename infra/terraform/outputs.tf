output "buckets" {
  description = "Names of the buckets, for infra/k8s."
  value       = { for name, bucket in aws_s3_bucket.team : name => bucket.bucket }
}

output "database" {
  description = "Address of the Postgres server."
  value       = aws_db_instance.team.address
}

output "database_password" {
  description = "Where the cloud keeps the administrator's password; not the password."
  value       = aws_db_instance.team.master_user_secret[0].secret_arn
}

output "runs" {
  description = "File system behind the claim vqbet-runs."
  value       = aws_efs_file_system.runs.id
}

output "cluster" {
  description = "Name of the cluster."
  value       = aws_eks_cluster.team.name
}
