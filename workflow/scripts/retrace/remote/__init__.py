"""Reading from buckets and web servers: addresses, S3 and HTTP, downloads, the block cache."""
