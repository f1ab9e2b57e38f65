variable "name" {
  description = "Prefix of everything that is made, and the name of the cluster."
  type        = string
  default     = "vqbet"
}

variable "region" {
  description = "Region of everything."
  type        = string
}

variable "subnets" {
  description = "Private subnets in at least two zones, with a way to the internet for images."
  type        = list(string)
}

variable "network" {
  description = "Network (VPC) of the subnets."
  type        = string
}

variable "gpu_machine" {
  description = "Machine type of the GPU nodes."
  type        = string
  default     = "p5.4xlarge"
}

variable "gpu_machines" {
  description = "Most GPU nodes at once; none runs while no job waits."
  type        = number
  default     = 2
}

variable "spot" {
  description = "Whether GPU nodes may be taken back by the cloud. A training resumes."
  type        = bool
  default     = true
}

variable "evidence_days" {
  description = "Days for which nobody can delete evidence, the account's owner included."
  type        = number
  default     = 365
}
