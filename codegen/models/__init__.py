"""Public trained networks, seeded architectures and labelled data, fetched from ordinary packages
on demand."""
