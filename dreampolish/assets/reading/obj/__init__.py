"""Reading OBJ and MTL."""
