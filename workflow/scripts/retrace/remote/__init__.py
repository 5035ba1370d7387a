"""Reading from elsewhere: addresses, S3 and HTTP, downloads, the block cache."""
