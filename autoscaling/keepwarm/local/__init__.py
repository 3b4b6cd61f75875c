"""`keepwarm run`: both servers on this machine, under one supervisor."""
