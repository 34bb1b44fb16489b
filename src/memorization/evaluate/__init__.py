"""What is measured of trained models and public checkpoints, by decoding job."""
