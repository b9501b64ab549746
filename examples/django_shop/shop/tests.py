from django.test import TransactionTestCase

from pgpubsub.contrib.django import hub


class Orders(TransactionTestCase):  # which commits, as notifications go out with the commit
    def test_what_becomes_of_an_order_is_told(self):
        with hub().subscribe("orders") as changes:
            self.client.post("/orders/1/", {"state": "paid"})
            assert '"state":"paid"' in changes.get(timeout=5).payload
