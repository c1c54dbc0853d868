"""Finished images: what they were made from, whether they are whole, and what else can be made of them."""
