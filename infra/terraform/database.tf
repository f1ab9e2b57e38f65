# One Postgres server for Prefect, MLflow and the ledger. The cloud makes the administrator's password and keeps it.
resource "aws_security_group" "inside" {
  name        = "${var.name}-inside"
  description = "From the cluster's nodes to the database and to the runs' folder"
  vpc_id      = var.network
}

resource "aws_vpc_security_group_ingress_rule" "from_nodes" {
  for_each                     = { postgres = 5432, files = 2049 }
  security_group_id            = aws_security_group.inside.id
  referenced_security_group_id = aws_eks_cluster.team.vpc_config[0].cluster_security_group_id
  from_port                    = each.value
  to_port                      = each.value
  ip_protocol                  = "tcp"
}

resource "aws_db_subnet_group" "team" {
  name       = var.name
  subnet_ids = var.subnets
}

resource "aws_db_instance" "team" {
  identifier                  = var.name
  engine                      = "postgres"
  engine_version              = "17"
  instance_class              = "db.t4g.medium"
  allocated_storage           = 50
  max_allocated_storage       = 500
  storage_encrypted           = true
  username                    = "vqbet"
  manage_master_user_password = true
  db_subnet_group_name        = aws_db_subnet_group.team.name
  vpc_security_group_ids      = [aws_security_group.inside.id]
  publicly_accessible         = false
  multi_az                    = true
  backup_retention_period     = 14
  deletion_protection         = true
  skip_final_snapshot         = false
  final_snapshot_identifier   = "${var.name}-last"
}
