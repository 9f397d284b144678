"""Why did the result change: what differs between two results, and how much each difference explains."""
