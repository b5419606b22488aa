"""The worker: takes jobs from their queues and does them, embedded or under Celery."""
