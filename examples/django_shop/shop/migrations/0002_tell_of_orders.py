from django.db import migrations

from pgpubsub.contrib.django.operations import InstallStreams, InstallTrigger


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [
        InstallStreams(),  # for pgpubsub.contrib.django.append
        InstallTrigger("order", to="orders", columns=["state"]),
    ]
