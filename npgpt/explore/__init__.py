"""A page where one watches GPT-2 think and learn: what it shows, its server, its export."""
