"""What may be handed over to a process: an object of each type, and what becomes of it.

case            one object, with witnesses of whether it is there; the registry of all
place           where objects are made, and what is put away afterwards
witness         what the kernel, or a library, says of an object
trying          one case: adopted, given back, and told as a row
document        the table of docs/adoption.md: read, and written
objects_*       the cases, by what they are
"""
