"""What `embedtrain-report` does: `page.py` writes or serves, `significance.py` tests what runs did not."""
