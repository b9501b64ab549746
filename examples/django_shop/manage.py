"""A shop that tells its customers, as it happens, what becomes of their orders.

python manage.py migrate
uvicorn shop.asgi:application --timeout-graceful-shutdown 3
curl -N localhost:8000/events/
curl -d state=paid localhost:8000/orders/1/
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    execute_from_command_line(sys.argv)
