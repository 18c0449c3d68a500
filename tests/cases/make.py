# Writes every case into a folder: python3 make.py FOLDER
import csv_tables, arrays, layouts
