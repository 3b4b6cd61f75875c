"""Answers given again: an exact cache in process and in Redis, one generation for all who ask."""
