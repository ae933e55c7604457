"""What operators ask of any swarm over the Engine API, decided without a socket: every function here takes what the API
answers (decoded JSON) and gives what is to be sent, or how far things are. So it holds under any leader."""
